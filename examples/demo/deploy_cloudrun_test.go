package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cloudrun "google.golang.org/api/run/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// TestDeployCloudRun holds service.yaml, in the API's own types, against
// sidegate.yaml and the image.
func TestDeployCloudRun(t *testing.T) {
	d, base := deploymentNamed(t, "cloudrun"), gatewayImage(t)
	config := d.config(t)
	var service cloudrun.Service
	if err := yaml.UnmarshalStrict([]byte(d.read(t, "service.yaml")), &service); err != nil {
		t.Fatal(err)
	}
	if service.ApiVersion != "serving.knative.dev/v1" || service.Kind != "Service" {
		t.Errorf("%s %s", service.ApiVersion, service.Kind)
	}
	revision := service.Spec.Template
	containers := map[string]*cloudrun.Container{}
	for _, c := range revision.Spec.Containers {
		containers[c.Name] = c
	}
	gateway, app := containers["gateway"], containers["app"]
	if gateway == nil || app == nil || len(containers) != 2 {
		t.Fatalf("the containers are %v", sortedKeys(containers))
	}

	// Requests come to the gateway, and to nothing else: Cloud Run routes to the one
	// container that has a port. https://cloud.google.com/run/docs/container-contract
	if len(gateway.Ports) != 1 || len(app.Ports) != 0 {
		t.Errorf("the gateway has %d ports, the app %d", len(gateway.Ports), len(app.Ports))
	}
	if config.Listen.Address != "" || d.env["PORT"] != fmt.Sprint(gateway.Ports[0].ContainerPort) {
		t.Error("the gateway does not listen at $PORT")
	}
	if !slices.Equal(config.Listen.Proxies, []string{"cloud-run"}) {
		t.Errorf("trusted_proxies: %v", config.Listen.Proxies)
	}

	// Who is waited for must have a startup probe, or the deployment is refused.
	var order map[string][]string
	if err := json.Unmarshal([]byte(revision.Metadata.Annotations["run.googleapis.com/container-dependencies"]), &order); err != nil {
		t.Fatal(err)
	}
	if len(order) != 1 || !slices.Equal(order["gateway"], []string{"app"}) || app.StartupProbe == nil {
		t.Errorf("the order is %v", order)
	}
	if want := fmt.Sprintf("http://127.0.0.1:%d", app.StartupProbe.TcpSocket.Port); config.Upstreams["app"].URL != want || !strings.HasSuffix(strings.Join(app.Args, " "), fmt.Sprintf("--port %d", app.StartupProbe.TcpSocket.Port)) {
		t.Errorf("the app is probed at %s, asked at %s", want, config.Upstreams["app"].URL)
	}
	for name, probe := range map[string]*cloudrun.Probe{"/health/ready": gateway.StartupProbe, "/health/live": gateway.LivenessProbe} {
		if probe == nil || probe.HttpGet == nil || probe.HttpGet.Path != name || fmt.Sprintf(":%d", probe.HttpGet.Port) != config.Admin.Address {
			t.Errorf("no probe of %s at %s: %v", name, config.Admin.Address, probe)
		}
		if probe.TimeoutSeconds > probe.PeriodSeconds || probe.PeriodSeconds*probe.FailureThreshold > 240 {
			t.Errorf("Cloud Run does not take the times of %v", probe)
		}
	}
	if a := revision.Metadata.Annotations; a["run.googleapis.com/cpu-throttling"] != "false" || a["autoscaling.knative.dev/minScale"] == "" {
		t.Error("without a CPU between requests nothing is shipped and nothing expires")
	}
	if service.Metadata.Annotations["run.googleapis.com/invoker-iam-disabled"] != "true" {
		t.Error("callers would need a Google account")
	}
	if len(service.Metadata.Annotations) != 2 || service.Metadata.Annotations["run.googleapis.com/ingress"] == "" {
		t.Errorf("the service's annotations are %v", service.Metadata.Annotations)
	}
	if !strings.HasSuffix(revision.Spec.ServiceAccountName, ".iam.gserviceaccount.com") {
		t.Error("the service has the project's default account, which may do everything")
	}

	// 10 s after SIGTERM comes SIGKILL.
	if grace, err := time.ParseDuration(config.Listen.ShutdownGrace); err != nil || grace >= 10*time.Second {
		t.Errorf("shutdown_grace %s: %v", config.Listen.ShutdownGrace, err)
	}

	if len(app.VolumeMounts) > 0 || len(app.Env) > 0 {
		t.Error("the app has what is the gateway's")
	}
	var given []string
	for _, e := range gateway.Env {
		given = append(given, e.Name)
	}
	d.givesVariables(t, given)

	volumes := map[string]*cloudrun.Volume{}
	for _, v := range revision.Spec.Volumes {
		volumes[v.Name] = v
	}
	mounts := map[string]*cloudrun.Volume{}
	for _, m := range gateway.VolumeMounts {
		mounts[m.MountPath] = volumes[m.Name]
	}
	state := mounts[filepath.Dir(config.Audit.Dir)]
	if state == nil || state.EmptyDir == nil || state.EmptyDir.Medium != "Memory" {
		t.Fatalf("%s is on no in-memory volume", config.Audit.Dir)
	}
	size, waiting := resource.MustParse(state.EmptyDir.SizeLimit), resource.MustParse(strings.TrimSuffix(config.Audit.MaxSize, "B"))
	if memory := resource.MustParse(gateway.Resources.Limits["memory"]); waiting.Value()*3/2 > size.Value() || size.Value() > memory.Value()/4 {
		t.Errorf("audit.max_size %s, the volume %s and the memory %s do not go together", &waiting, &size, &memory)
	}
	key := fileForm.FindStringSubmatch(config.Audit.Key)[1]
	if v := mounts[filepath.Dir(key)]; v == nil || v.Secret == nil || len(v.Secret.Items) != 1 || v.Secret.Items[0].Path != filepath.Base(key) || v.Secret.Items[0].Key == "latest" {
		t.Errorf("%s is not a pinned version of a secret", key)
	}
	for path := range mounts { // what the image has there would be gone
		if strings.HasPrefix(base.workdir, path) {
			t.Errorf("%s lies over the image's files", path)
		}
	}
}
