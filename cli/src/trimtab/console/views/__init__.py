"""From a request to a page: who asks, what is read, and the value that a template shows. Five to thirty lines each."""
