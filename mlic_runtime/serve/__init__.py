"""The HTTP server `mlic-serve`. It needs the extra `mlic-runtime[serve]`; no other room imports that."""
