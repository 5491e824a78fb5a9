"""The project's version, in the one place that packaging, contracts and the command line read."""

VERSION = "0.1.0"
