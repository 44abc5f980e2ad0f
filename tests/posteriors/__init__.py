"""Real posteriors with known answers, written as sums of factors."""
