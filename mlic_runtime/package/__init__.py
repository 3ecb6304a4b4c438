"""Model packages: manifest, folders, .mlic files, installed models, and what is checked before one is used."""
