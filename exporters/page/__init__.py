"""A static page that runs a packed ensemble in the browser: its files, and the code that puts them into a folder."""
