"""`python -m dao`: the command line."""

from dao.cli.main import main

if __name__ == "__main__":
    main()
