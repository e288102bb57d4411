"""Settings: what they are (schema), where they come from (load), and every one with its reason (wonted.yaml)."""

VERSION = "0.1.0"
