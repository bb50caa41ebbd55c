"""What a job would take: memory, machines, minutes and money, said before anything is started."""
