package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// TestDeployCompose holds compose.yaml, as Compose itself reads it, against
// sidegate.yaml and the image.
func TestDeployCompose(t *testing.T) {
	d, base := deploymentNamed(t, "compose"), gatewayImage(t)
	config := d.config(t)
	load := func(env ...string) (*types.Project, error) {
		options, err := cli.NewProjectOptions([]string{d.path("compose.yaml")}, cli.WithEnv(env), cli.WithProfiles([]string{"*"}), cli.WithWorkingDirectory(d.path(".")))
		if err != nil {
			t.Fatal(err)
		}
		return options.LoadProject(t.Context())
	}
	if _, err := load(); err == nil || !strings.Contains(err.Error(), "S3_SECRET_KEY") {
		t.Errorf("without a password of one's own: %v", err)
	}
	p, err := load("S3_SECRET_KEY=of-the-test")
	if err != nil {
		t.Fatal(err)
	}
	gateway, app, store := p.Services["gateway"], p.Services["app"], p.Services["store"]

	// Nobody reaches the app around the gateway.
	if app.NetworkMode != "service:gateway" || len(app.Ports) > 0 || len(app.Networks) > 0 {
		t.Error("the app has a network of its own")
	}
	if !strings.Contains(app.Build.DockerfileInline, `"--host", "127.0.0.1", "--port", "9000"`) || config.Upstreams["app"].URL != "http://127.0.0.1:9000" {
		t.Error("the app does not listen on 127.0.0.1 alone, where the gateway asks it")
	}
	published := map[string][]string{}
	for name, s := range p.Services {
		for _, port := range s.Ports {
			published[name] = append(published[name], fmt.Sprintf("%s:%s:%d", port.HostIP, port.Published, port.Target))
		}
		if s.Privileged || s.NetworkMode == "host" {
			t.Errorf("%s is as good as the host", name)
		}
	}
	if fmt.Sprint(published) != "map[gateway:[127.0.0.1:8080:8080] store:[127.0.0.1:7070:7070]]" {
		t.Errorf("published: %v", published)
	}
	if config.Listen.Address != ":8080" || config.Admin.Address != "" {
		t.Error("sidegate.yaml listens elsewhere")
	}
	if !p.Networks["backend"].Internal || slices.Contains(sortedKeys(p.Services["firestore"].Networks), "edge") {
		t.Error("the emulator, which knows no passwords, can be reached")
	}

	// Redis, which asks for no password either, where sidegate.yaml has it.
	redis := p.Services["redis"]
	if config.Redis.URL != "redis://redis:6379" || !slices.Equal(sortedKeys(redis.Networks), []string{"backend"}) || len(redis.Ports) > 0 || redis.HealthCheck == nil {
		t.Errorf("Redis is asked at %q, and is in %v", config.Redis.URL, sortedKeys(redis.Networks))
	}
	if need, asked := gateway.DependsOn["redis"]; !asked || need.Condition != types.ServiceConditionStarted {
		t.Error("the gateway, which needs no Redis, waits until it is healthy, or nothing starts it")
	}

	// What the gateway finds.
	given := sortedKeys(gateway.Environment)
	d.givesVariables(t, given, "FIRESTORE_EMULATOR_HOST", "FIREBASE_AUTH_EMULATOR_HOST")
	if *gateway.Environment["S3_SECRET_KEY"] != *store.Environment["ROOT_SECRET_KEY"] || *gateway.Environment["S3_ACCESS_KEY"] != *store.Environment["ROOT_ACCESS_KEY"] {
		t.Error("gateway and store have other credentials")
	}
	if host := *gateway.Environment["FIRESTORE_EMULATOR_HOST"]; host != d.env["FIRESTORE_EMULATOR_HOST"] || !slices.Contains(p.Services["firestore"].Command, "--host-port=0.0.0.0:8200") || host != "firestore:8200" {
		t.Errorf("the emulator is asked at %s", host)
	}
	if !slices.Contains(p.Services["prepare"].Command, "mkdir -p /objects/"+*gateway.Environment["S3_BUCKET"]+" && chown "+base.user+" /state") {
		t.Errorf("the bucket is not made, or the folder not given to %s: %v", base.user, p.Services["prepare"].Command)
	}
	mounts := map[string]types.ServiceVolumeConfig{}
	for _, v := range gateway.Volumes {
		mounts[v.Target] = v
	}
	if m := mounts[base.workdir]; m.Source != d.path(".") && filepath.Clean(m.Source) != filepath.Clean(d.path(".")) || !m.ReadOnly {
		t.Errorf("%s is not this folder: %v", base.workdir, m)
	}
	if m := mounts[filepath.Dir(config.Audit.Dir)]; m.Type != "volume" || m.ReadOnly {
		t.Errorf("%s is on no volume", config.Audit.Dir)
	}
	if !slices.Equal([]string(gateway.HealthCheck.Test), append([]string{"CMD"}, base.healthcheck...)) {
		t.Errorf("the health check is %v", gateway.HealthCheck.Test)
	}
	if !slices.Equal([]string(gateway.Command), append([]string{"run"}, d.flags...)) {
		t.Errorf("the command is %v", gateway.Command)
	}
	for _, s := range []types.ServiceConfig{gateway, app} {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s can write to its root, or has privileges", s.Name)
		}
		if s.Build != nil {
			if _, err := os.Stat(s.Build.Context); err != nil {
				t.Error(err)
			}
		}
	}
}
