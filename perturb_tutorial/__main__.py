"""``python -m perturb_tutorial``: the command line."""

from perturb_tutorial.cli import main

if __name__ == "__main__":
    main()
