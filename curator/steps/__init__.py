"""The verbs as functions: what the commands call, and what a script can call as well."""
