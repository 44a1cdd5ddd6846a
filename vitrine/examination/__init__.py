"""One checkpoint examined: the subject, analyses run in isolation, their budget, ranks that divide them."""
