"""From a path or URL to images and label maps, batch by batch, never the whole set in memory."""
