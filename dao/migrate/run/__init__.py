"""The one transaction in which a run happens."""
