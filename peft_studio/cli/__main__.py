"""``python -m peft_studio.cli``: the command line, where it is not on the path."""

from peft_studio.cli import main

if __name__ == "__main__":
    main()
