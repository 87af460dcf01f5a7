"""From files to conversations: found, read record by record, recognised, and refused where a key is not understood."""
