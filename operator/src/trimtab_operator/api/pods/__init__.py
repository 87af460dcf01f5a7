"""The part of a pod that users choose: its template, where it may run, what it asks for."""
