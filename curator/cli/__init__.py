"""The command line: one file a group of verbs. Parse, import inside the body, call, print."""
