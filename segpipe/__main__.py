"""``python -m segpipe``, which is what ``torchrun -m segpipe`` runs."""

from segpipe.cli.main import program

if __name__ == "__main__":
    program()
