"""The stream from observations to alerts, and the command line."""
