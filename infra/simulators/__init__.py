"""Outside services on loopback, each speaking its vendor's wire contract: for tests, and for rehearsals at no cost."""
