"""``engine serve``: a plan kept open behind HTTP; batches are formed across requests."""
