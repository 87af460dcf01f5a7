"""From conversations to tokens: rendered by the chat template, with a mask of what is learned, exact to the token."""
