"""The report of a study: its statistics, its sentences, and the pages made of them."""
