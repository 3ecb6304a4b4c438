"""Where bytes come from: paths, addresses, tar members, folders of pictures."""
