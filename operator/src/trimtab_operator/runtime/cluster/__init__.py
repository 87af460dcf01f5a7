"""What is known of the cluster: the first list, watches, audits, and the cache they fill."""
