"""Compare methods by seeds on one data set: what is run, where, and what the results say."""
