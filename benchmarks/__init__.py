"""Speed and memory as ratios that are measured side by side in one run; scripts/benchmark.py."""
