"""What each pod is to hold and where its alias points: waves, traffic, documents and their order."""
