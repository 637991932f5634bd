package cmd

import (
	"errors"
	"strings"
	"time"

	"sidegate/policy/document"
	"sidegate/storage/webhook"
)

// readWebhook reads who is told of uploads. What the URL and the secret are is
// never shown: both can be enough to be taken for this gateway, or its app.
func (l *configLoader) readWebhook(v document.Value, c *Config) {
	if !v.Present() {
		return
	}
	m := v.Map(l.keys["webhook"])
	at, secret := m.Need("url"), m.Need("secret")
	c.Webhook.URL, c.Webhook.Secret = l.secret(at), l.secret(secret)
	l.warnLiteral(secret)
	if !c.Webhook.URL.IsSet() || !c.Webhook.Secret.IsSet() {
		return
	}
	if _, err := c.webhook(); err != nil {
		key := at
		if bad := (*webhook.SecretError)(nil); errors.As(err, &bad) {
			key = secret
		}
		key.Errorf("`%s`: %s", key.Path(), strings.TrimPrefix(err.Error(), "webhook: "))
	}
}

// webhook is the endpoint that is told, without asking it anything.
func (c *Config) webhook() (*webhook.Endpoint, error) {
	return webhook.New(webhook.Options{URL: c.Webhook.URL.Reveal(), Secret: c.Webhook.Secret.Reveal(), Now: time.Now})
}
