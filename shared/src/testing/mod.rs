//! For tests: conformance suites of the ports, and fakes.
