"""The demonstration: a small base model, a data set, and the program that shows the whole product on them."""
