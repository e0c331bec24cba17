package engine_test

import (
	"context"
	"fmt"
	"time"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk/mail"
)

func Example() {
	script, err := engine.Compile([]byte(`
		require ["fileinto", "variables"];
		if header :matches "Subject" "[*] *" {
			fileinto "lists/${1}";
		}`), engine.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	header, body := mail.SplitMessage([]byte("Subject: [golang] hello\r\n\r\nHi!\r\n"))
	result, err := script.Run(context.Background(), &engine.Message{Header: header, Body: mail.InlineBody(body)},
		&engine.Env{From: "alice@example.org", To: "bob@example.net", Now: time.Now()})
	if err != nil {
		fmt.Println(err) // something is not to be had now: run it again later
		return
	}
	for _, a := range result.Actions {
		fmt.Println(a.Kind, a.Mailbox)
	}
	// Output: fileinto lists/golang
}

// What is wrong with a script, line by line.
func ExampleCheck() {
	_, faults := engine.Check([]byte("keep;\nfileinto \"x\";\nredirect \"nobody\";\n"), engine.Options{})
	for _, f := range faults {
		fmt.Println(f)
	}
	// Output:
	// line 2: command 'fileinto' needs the extension 'fileinto': add it to 'require'
	// line 3: 'nobody' is no address to redirect to
}

// With Explain a result has the steps that led to it.
func ExampleScript_Run_explain() {
	script, _ := engine.Compile([]byte("if header :contains \"Subject\" \"sale\" {\n\tdiscard;\n}"), engine.Options{})
	header, _ := mail.SplitMessage([]byte("Subject: Big sale!\r\n\r\n"))
	result, _ := script.Run(context.Background(), &engine.Message{Header: header}, &engine.Env{Now: time.Now(), Explain: true})
	for _, s := range result.Steps {
		fmt.Printf("%d %s\n", s.Line, s.Text)
	}
	// Output:
	// 1   "Big sale!" fits "sale"
	// 1 header: true
	// 2 discard
}
