"""A serving engine, vLLM, that the evaluate stage starts beside itself, asks for answers, and ends again."""
