"""The concrete stages: judges, generator, aligner, CLCAE."""
