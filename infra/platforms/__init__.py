"""The platforms a studio can be connected to: one table, one way to try a credential, one place that knows who is."""
