"""What results are judged by: pure functions, and accumulators that state their protocol."""
