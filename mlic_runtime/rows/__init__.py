"""Where rows of pictures and captions come from: files, folders, addresses."""
