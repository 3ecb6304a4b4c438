"""`python -m mlic_runtime.cli`, which does what `mlic-infer` does."""

from .infer import main

if __name__ == "__main__":
    main()
