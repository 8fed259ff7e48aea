// Renders conversations by Go's own text/template, with what Ollama hands to a template.
//
// On stdin a JSON list of {"template", "messages", "think", "isThinkSet"}, on stdout one of texts.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"text/template"
)

type message struct {
	Role, Content, Thinking string
}

type conversation struct {
	Template          string
	Messages          []message
	Think, IsThinkSet bool
}

func main() {
	var asked []conversation
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		panic(err)
	}
	texts := []string{}
	for _, one := range asked {
		parsed := template.Must(template.New("").Option("missingkey=zero").Parse(one.Template))
		var text bytes.Buffer
		told := map[string]any{
			"System": "", "Messages": one.Messages, "Tools": nil, "Response": "",
			"Think": one.Think, "IsThinkSet": one.IsThinkSet,
		}
		if err := parsed.Execute(&text, told); err != nil {
			panic(err)
		}
		texts = append(texts, text.String())
	}
	if err := json.NewEncoder(os.Stdout).Encode(texts); err != nil {
		panic(err)
	}
}
