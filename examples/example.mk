# make runs the example on a throwaway server; make test runs its test.
all:
	@../../test/run examples $(notdir $(CURDIR))
test:
	@../../test/run examples $(notdir $(CURDIR)) test
.PHONY: all test
