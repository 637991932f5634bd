package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// A cluster is what `kubectl apply -k examples/kubernetes` would send, in the
// API's own types.
type cluster struct {
	namespace  corev1.Namespace
	account    corev1.ServiceAccount
	config     corev1.ConfigMap
	deployment appsv1.Deployment
	service    corev1.Service
	network    networkingv1.NetworkPolicy
	budget     policyv1.PodDisruptionBudget
	autoscaler autoscalingv2.HorizontalPodAutoscaler
}

// readCluster builds the folder as kubectl does, and takes no field that the API
// does not know.
func readCluster(t *testing.T) cluster {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), deploymentNamed(t, "kubernetes").path("."))
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	var c cluster
	kinds := map[string]any{
		"Namespace": &c.namespace, "ServiceAccount": &c.account, "ConfigMap": &c.config, "Deployment": &c.deployment, "Service": &c.service,
		"NetworkPolicy": &c.network, "PodDisruptionBudget": &c.budget, "HorizontalPodAutoscaler": &c.autoscaler,
	}
	for _, document := range documentsOf(text) {
		var head struct{ Kind string }
		if err := yaml.Unmarshal(document, &head); err != nil {
			t.Fatal(err)
		}
		into, known := kinds[head.Kind]
		if !known {
			t.Fatalf("a second %s, or one that nothing looks at", head.Kind)
		}
		delete(kinds, head.Kind)
		if err := yaml.UnmarshalStrict(document, into); err != nil {
			t.Errorf("%s: %v", head.Kind, err)
		}
	}
	for kind := range kinds {
		t.Errorf("no %s", kind)
	}
	return c
}

// TestDeployKubernetes holds the manifests against each other, sidegate.yaml and
// the image.
func TestDeployKubernetes(t *testing.T) {
	d, c, base := deploymentNamed(t, "kubernetes"), readCluster(t), gatewayImage(t)
	config := d.config(t)
	pod := c.deployment.Spec.Template.Spec
	if len(pod.InitContainers) != 1 || len(pod.Containers) != 1 {
		t.Fatalf("%d init containers and %d containers", len(pod.InitContainers), len(pod.Containers))
	}
	app, gateway := pod.InitContainers[0], pod.Containers[0]

	// The pods are those that everything else is about.
	labels := c.deployment.Spec.Template.Labels
	for what, selector := range map[string]map[string]string{
		"the Deployment": c.deployment.Spec.Selector.MatchLabels, "the Service": c.service.Spec.Selector,
		"the NetworkPolicy": c.network.Spec.PodSelector.MatchLabels, "the PodDisruptionBudget": c.budget.Spec.Selector.MatchLabels,
	} {
		if fmt.Sprint(selector) != fmt.Sprint(labels) {
			t.Errorf("%s selects %v, the pods have %v", what, selector, labels)
		}
	}
	if to := c.autoscaler.Spec.ScaleTargetRef; to.Kind != "Deployment" || to.Name != c.deployment.Name || to.APIVersion != c.deployment.APIVersion {
		t.Errorf("the autoscaler is about %v", to)
	}
	if of := c.autoscaler.Spec.Metrics[0].ContainerResource; of == nil || of.Container != gateway.Name || gateway.Resources.Requests.Cpu().IsZero() {
		t.Error("the autoscaler looks at a container that asks for no CPU")
	}
	if pod.ServiceAccountName != c.account.Name || c.deployment.Namespace != c.namespace.Name {
		t.Error("account or namespace are others")
	}

	// Nobody reaches the app around the gateway.
	if app.RestartPolicy == nil || *app.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Error("the app is no native sidecar: it would have to end before the gateway starts")
	}
	if app.StartupProbe == nil || app.StartupProbe.Exec == nil {
		t.Error("the app's startup probe is not run in its container: nothing else reaches 127.0.0.1")
	}
	if len(app.Ports) > 0 || config.Upstreams["app"].URL != "http://127.0.0.1:9000" || !strings.Contains(strings.Join(app.Args, " "), "--host 127.0.0.1 --port 9000") {
		t.Error("the app does not listen on 127.0.0.1 alone, where the gateway asks it")
	}
	if c.service.Spec.Type != "" && c.service.Spec.Type != corev1.ServiceTypeClusterIP {
		t.Errorf("the Service is a %s", c.service.Spec.Type)
	}
	if len(c.service.Spec.Ports) != 1 || c.service.Spec.Ports[0].TargetPort.StrVal != "http" {
		t.Error("the Service leads to more than the gateway's public port")
	}
	allowed := map[string]string{} // port to namespace
	for _, rule := range c.network.Spec.Ingress {
		if len(rule.From) != 1 || rule.From[0].NamespaceSelector == nil || len(rule.From[0].NamespaceSelector.MatchLabels) == 0 || len(rule.Ports) != 1 {
			t.Fatalf("a rule of the NetworkPolicy is wider than one port of one namespace: %v", rule)
		}
		allowed[rule.Ports[0].Port.StrVal] = rule.From[0].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]
	}
	if fmt.Sprint(allowed) != "map[admin:monitoring http:ingress-nginx]" || len(c.network.Spec.PolicyTypes) != 1 || c.network.Spec.PolicyTypes[0] != networkingv1.PolicyTypeIngress {
		t.Errorf("the NetworkPolicy lets in %v", allowed)
	}

	// What a platform can keep from the app is kept from it.
	if skipped := c.deployment.Spec.Template.Annotations["eks.amazonaws.com/skip-containers"]; skipped != app.Name || len(app.VolumeMounts) > 0 || len(app.Env) > 0 || len(app.EnvFrom) > 0 || pod.ShareProcessNamespace != nil || pod.HostNetwork {
		t.Errorf("the app has what is the gateway's: skipped is %q", skipped)
	}

	// Ports, probes, variables, files.
	ports := map[string]string{}
	for _, p := range gateway.Ports {
		ports[p.Name] = fmt.Sprintf(":%d", p.ContainerPort)
	}
	if ports["http"] != config.Listen.Address || ports["admin"] != config.Admin.Address || len(ports) != 2 {
		t.Errorf("the container's ports are %v, sidegate.yaml's %s and %s", ports, config.Listen.Address, config.Admin.Address)
	}
	for name, probe := range map[string]*corev1.Probe{"startup": gateway.StartupProbe, "readiness": gateway.ReadinessProbe, "liveness": gateway.LivenessProbe} {
		want := "/health/ready"
		if name == "liveness" { // which would restart a gateway for an outage of Firestore
			want = "/health/live"
		}
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != want || probe.HTTPGet.Port.StrVal != "admin" {
			t.Errorf("the %s probe is %v", name, probe)
		}
	}
	var given []string
	for _, e := range gateway.Env {
		given = append(given, e.Name)
	}
	d.givesVariables(t, given)
	mounted := map[string]corev1.VolumeMount{}
	for _, m := range gateway.VolumeMounts {
		mounted[m.MountPath] = m
	}
	volumes := map[string]corev1.VolumeSource{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = v.VolumeSource
	}
	if m := mounted[base.workdir]; m.SubPath != "" || volumes[m.Name].ConfigMap == nil || volumes[m.Name].ConfigMap.Name != c.config.Name {
		t.Errorf("the ConfigMap %s is not what is mounted as a folder at %s", c.config.Name, base.workdir)
	}
	for _, file := range []string{"sidegate.yaml", "policy.yaml"} {
		if c.config.Data[file] != d.read(t, file) {
			t.Errorf("the ConfigMap's %s is not the folder's", file)
		}
	}
	if dir := filepath.Dir(fileForm.FindStringSubmatch(config.Audit.Key)[1]); volumes[mounted[dir].Name].Secret == nil {
		t.Errorf("no Secret is mounted at %s", dir)
	}
	if m := mounted[filepath.Dir(config.Audit.Dir)]; volumes[m.Name].EmptyDir == nil || m.ReadOnly {
		t.Errorf("%s is not on a volume that can be written", config.Audit.Dir)
	}
	if config.Audit.Survive != "machine" || config.Storage.Firestore == nil {
		t.Error("the pod's disk ends with the pod, and something counts on it")
	}

	// Least privilege.
	if p := pod.SecurityContext; fmt.Sprintf("%d:%d", *p.RunAsUser, *p.RunAsGroup) != base.user || !*p.RunAsNonRoot || *p.FSGroup != *p.RunAsGroup || p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's security context is %v, the image's user %s", p, base.user)
	}
	for _, container := range []corev1.Container{app, gateway} {
		s := container.SecurityContext
		if s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: %v", container.Name, s)
		}
		if container.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s has no bound of memory", container.Name)
		}
	}
	if *pod.AutomountServiceAccountToken || c.namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		t.Error("the pod has a token of the cluster, or its namespace takes any pod")
	}

	// Stopping: the gateway drains, ends, and then the app is told.
	grace, err := time.ParseDuration(config.Listen.ShutdownGrace)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second - grace; left < 10*time.Second || config.Listen.DrainDelay == "" {
		t.Errorf("the pod is killed %v after the gateway's grace", left)
	}
	if c.budget.Spec.MinAvailable == nil || int32(c.budget.Spec.MinAvailable.IntVal) >= *c.autoscaler.Spec.MinReplicas {
		t.Error("the PodDisruptionBudget lets no node be drained")
	}
	if c.deployment.Spec.Replicas != nil {
		t.Error("the Deployment sets replicas that the autoscaler sets, too")
	}
}

// TestDeployKubernetesReload runs the gateway with its files as the kubelet
// mounts a ConfigMap, and changes the ConfigMap as the kubelet does: the new
// policy is in force without a restart, and of a broken one the last good stays.
func TestDeployKubernetesReload(t *testing.T) {
	d := deploymentNamed(t, "kubernetes")
	s := d.setup(t, lab.appURL)
	version := 0
	publish := func(policy string) {
		t.Helper()
		// pkg/volume/util/atomic_writer.go of Kubernetes: a new folder, a link to it
		// beside ..data, a rename over ..data, and the old folder goes.
		old, _ := os.Readlink(filepath.Join(s.dir, "..data"))
		version++
		folder := fmt.Sprintf("..2026_03_02_10_00_00.%d", version)
		if err := os.Mkdir(filepath.Join(s.dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
		writeDefault(t, filepath.Join(s.dir, folder), "sidegate.yaml", s.config)
		writeDefault(t, filepath.Join(s.dir, folder), "policy.yaml", policy)
		err := errors.Join(
			os.Symlink(folder, filepath.Join(s.dir, "..data_tmp")),
			os.Rename(filepath.Join(s.dir, "..data_tmp"), filepath.Join(s.dir, "..data")),
		)
		if old != "" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, old)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	first := s.policy
	publish(first)
	for _, name := range []string{"sidegate.yaml", "policy.yaml"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	// The files are there already: as links.
	run := s
	run.config, run.policy = "", ""
	g := startGateway(t, run)
	alice := token(t, "alice")
	// What it says of a policy, it says when that is in force or refused.
	holds := func(policy string, status int) {
		t.Helper()
		if got := ask(t, http.MethodGet, g.url+"/v1/me", alice, "").status; got != status {
			t.Errorf("%s: %d, want %d", policy, got, status)
		}
	}
	replaced := func(policy string) {
		t.Helper()
		g.logs(t, fmt.Sprintf(`"policy":"%x","before":`, sha256.Sum256([]byte(policy))))
	}
	holds("the first policy", http.StatusOK)
	const me = "  - {id: me, path: /v1/me, methods: [GET], upstream: app, allow: [{id: user, who: [users]}]}\n"
	if !strings.Contains(first, me) {
		t.Fatalf("policy.yaml holds no %q", me)
	}
	without := strings.Replace(first, me, "", 1)
	publish(without)
	replaced(without)
	holds("without the route", http.StatusNotFound)
	publish("version: nonsense\n")
	g.logs(t, "the new policy is refused")
	holds("a broken policy", http.StatusNotFound)
	publish(first)
	replaced(first)
	holds("the first policy again", http.StatusOK)
}
