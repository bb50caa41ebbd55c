"""PEFT Studio: the words of the domain, the trainer program, the client and the command line."""
