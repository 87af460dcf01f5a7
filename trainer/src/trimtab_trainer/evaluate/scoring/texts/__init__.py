"""What written answers say, and how near they are to what was asked for.

parsing       the label or the number that a text answers (`preparing` reads right answers by the same rules)
patterns      patterns of tenants, in linear time
refusals      what is a refusal
text_metrics  generated texts against references, by the libraries that define the metrics
"""
