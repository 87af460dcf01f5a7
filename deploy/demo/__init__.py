"""The demonstration: a cluster, an installation of Trimtab in it, and one FineTuneJob from question to answer."""
