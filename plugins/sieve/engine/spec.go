package engine

// commandSpec is what the compiler knows of a command, testSpec of a test.
type (
	commandSpec struct {
		sig   signature
		build func(c *compiler, b *bound) (step, *Error)
	}
	testSpec struct {
		sig   signature
		build func(c *compiler, b *bound) (cond, *Error)
	}
)

// Extensions are the capabilities that this package has, by the names that "require" takes.
func Extensions() []string {
	return []string{
		"fileinto", "envelope", "encoded-character", "comparator-i;octet", "comparator-i;ascii-casemap",
		"comparator-i;ascii-numeric", "comparator-i;unicode-casemap",
		"variables", "copy", "relational", "subaddress", "imap4flags", "regex", "include", "ihave",
		"vacation", "vacation-seconds", "reject", "ereject", "enotify", "fcc", "duplicate",
		"date", "index", "editheader", "environment", "spamtest", "spamtestplus", "virustest",
		"body", "foreverypart", "mime", "extracttext", "replace", "enclose",
		"mailbox", "mboxmetadata", "servermetadata", "special-use",
	}
}

func findCommand(name string) (commandSpec, bool) {
	for _, find := range []func(string) (commandSpec, bool){
		actionCommand, variableCommand, flagCommand, includeCommand, refuseCommand, vacationCommand, notifyCommand, editCommand, ihaveCommand,
		partCommand, replaceCommand,
	} {
		if spec, ok := find(name); ok {
			return spec, true
		}
	}
	return commandSpec{}, false
}

func findTest(name string) (testSpec, bool) {
	for _, find := range []func(string) (testSpec, bool){
		logicTest, messageTest, variableTest, flagTest, dateTest, mailboxTest, scanTest, duplicateTest, notifyTest, ihaveTest,
		bodyTest,
	} {
		if spec, ok := find(name); ok {
			return spec, true
		}
	}
	return testSpec{}, false
}
