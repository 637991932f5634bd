package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// readStrictly reads JSON as the AWS CLI reads the input of a call: no field may
// be one that the call does not have, and no word one that its enumeration does not have.
func readStrictly(t *testing.T, text string, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatal(err)
	}
	enumerations(t, reflect.ValueOf(into), "")
}

// enumerations looks at every word that has a list of the values it may have:
// the SDK's enumerations are strings with a method Values.
func enumerations(t *testing.T, v reflect.Value, at string) {
	t.Helper()
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			enumerations(t, v.Elem(), at)
		}
	case reflect.Slice:
		for i := range v.Len() {
			enumerations(t, v.Index(i), fmt.Sprintf("%s[%d]", at, i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				enumerations(t, v.Field(i), at+"."+f.Name)
			}
		}
	case reflect.String:
		values := v.MethodByName("Values")
		if !values.IsValid() || v.String() == "" {
			return
		}
		all := values.Call(nil)[0]
		for i := range all.Len() {
			if all.Index(i).String() == v.String() {
				return
			}
		}
		t.Errorf("%s: %q is none of %v", at, v.String(), all)
	}
}

// TestDeployECS holds the task definition, in the API's own types, against
// sidegate.yaml and the image.
func TestDeployECS(t *testing.T) {
	d, base := deploymentNamed(t, "ecs"), gatewayImage(t)
	config := d.config(t)
	var task ecs.RegisterTaskDefinitionInput
	readStrictly(t, d.read(t, "taskdef.json"), &task)
	var service ecs.CreateServiceInput
	readStrictly(t, d.read(t, "service.json"), &service)

	containers := map[string]types.ContainerDefinition{}
	for _, c := range task.ContainerDefinitions {
		containers[*c.Name] = c
	}
	gateway, app := containers["gateway"], containers["app"]
	if len(containers) != 2 || gateway.Name == nil || app.Name == nil {
		t.Fatalf("the containers are %v", sortedKeys(containers))
	}

	// Nobody reaches the app around the gateway.
	if task.NetworkMode != types.NetworkModeAwsvpc || !slices.Equal(task.RequiresCompatibilities, []types.Compatibility{types.CompatibilityFargate}) {
		t.Error("only with awsvpc the containers of a task have a 127.0.0.1 of their own")
	}
	if len(app.PortMappings) > 0 || !strings.Contains(strings.Join(app.Command, " "), "--host 127.0.0.1 --port 9000") || config.Upstreams["app"].URL != "http://127.0.0.1:9000" {
		t.Error("the app does not listen on 127.0.0.1 alone, where the gateway asks it")
	}
	if len(gateway.PortMappings) != 1 || fmt.Sprintf(":%d", *gateway.PortMappings[0].ContainerPort) != config.Listen.Address {
		t.Errorf("the gateway's ports are %v", gateway.PortMappings)
	}
	if config.Admin.Address != "" {
		t.Error("the admin listener is reachable from the VPC")
	}
	if lb := service.LoadBalancers; len(lb) != 1 || *lb[0].ContainerName != "gateway" || *lb[0].ContainerPort != *gateway.PortMappings[0].ContainerPort {
		t.Error("the load balancer does not lead to the gateway")
	}
	if n := service.NetworkConfiguration.AwsvpcConfiguration; n.AssignPublicIp != types.AssignPublicIpDisabled || len(n.SecurityGroups) != 1 {
		t.Error("the tasks have public addresses")
	}
	if *service.TaskDefinition != *task.Family {
		t.Error("the service runs another task")
	}

	// Start and stop: the app first and last.
	if len(gateway.DependsOn) != 1 || *gateway.DependsOn[0].ContainerName != "app" || gateway.DependsOn[0].Condition != types.ContainerConditionHealthy || app.HealthCheck == nil {
		t.Errorf("the gateway does not wait until the app is healthy: %v", gateway.DependsOn)
	}
	// ECS replaces a task whose check fails: not for an outage elsewhere, when the
	// image's own question, whether it is ready, is answered no.
	if !slices.Equal(gateway.HealthCheck.Command, slices.Concat([]string{"CMD"}, base.healthcheck, []string{"--started"})) {
		t.Errorf("the health check is %v, the image's %v", gateway.HealthCheck.Command, base.healthcheck)
	}
	grace, err := time.ParseDuration(config.Listen.ShutdownGrace)
	if err != nil {
		t.Fatal(err)
	}
	drain, err := time.ParseDuration(config.Listen.DrainDelay)
	if err != nil {
		t.Fatal(err)
	}
	if stop := time.Duration(*gateway.StopTimeout) * time.Second; stop > 120*time.Second || stop < grace+5*time.Second || drain >= grace/2 {
		t.Errorf("stopTimeout %v, shutdown_grace %v, drain_delay %v", stop, grace, drain)
	}

	// Least privilege.
	if *gateway.User != base.user || !*gateway.ReadonlyRootFilesystem || !slices.Equal(gateway.LinuxParameters.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("user %s, read-only root %v", *gateway.User, *gateway.ReadonlyRootFilesystem)
	}
	if *task.TaskRoleArn == *task.ExecutionRoleArn {
		t.Error("one role for what ECS does and for what the gateway may")
	}
	var given []string
	for _, e := range gateway.Environment {
		given = append(given, *e.Name)
	}
	for _, s := range gateway.Secrets {
		given = append(given, *s.Name)
	}
	d.givesVariables(t, given, "AWS_REGION", "GOOGLE_APPLICATION_CREDENTIALS")
	for _, name := range given {
		if strings.Contains(name, "ACCESS_KEY") || strings.Contains(name, "SESSION_TOKEN") {
			t.Errorf("%s is a static key", name)
		}
	}
	if len(app.Secrets) > 0 || len(app.MountPoints) > 0 || len(app.Environment) > 0 {
		t.Error("the app has what is the gateway's")
	}
	if len(gateway.Secrets) != 1 || len(gateway.Environment) != 5 {
		t.Error("secrets stand where everybody can read them")
	}
	mount := gateway.MountPoints
	if len(mount) != 1 || *mount[0].ContainerPath != filepath.Dir(config.Audit.Dir) || *mount[0].ReadOnly || *mount[0].SourceVolume != *task.Volumes[0].Name {
		t.Errorf("%s is on no volume", config.Audit.Dir)
	}
	if !strings.Contains(d.read(t, "Dockerfile"), "VOLUME "+*mount[0].ContainerPath+"\n") {
		t.Error("Fargate gives a volume to root where the image has no VOLUME there")
	}
	if config.Audit.Survive != "machine" || config.Storage.Firestore == nil {
		t.Error("the task's disk ends with the task, and something counts on it")
	}
}

// An iamPolicy is what the tests know of AWS's policy language.
type iamPolicy struct {
	Version   string
	Statement []struct {
		Sid, Effect      string
		Principal        map[string]string
		Action, Resource any
		Condition        map[string]map[string]any
	}
}

// TestDeployECSRoles: the task's role is what `sidegate iam` prints, no more and
// no less, and the execution role can do nothing with the bucket.
func TestDeployECSRoles(t *testing.T) {
	d := deploymentNamed(t, "ecs")
	config, env := d.placed(t)
	dir := t.TempDir()
	writeDefault(t, dir, "sidegate.yaml", config)
	writeDefault(t, dir, "policy.yaml", d.read(t, "policy.yaml"))
	env = append(slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "S3_BUCKET=") }), "S3_BUCKET=YOUR_BUCKET")
	status, printed, errs := sidegate(t, env, "iam", "--config", filepath.Join(dir, "sidegate.yaml"))
	if status != 0 || errs != "" {
		t.Fatalf("status %d: %s", status, errs)
	}
	if printed != d.read(t, "task-role.json") {
		t.Errorf("task-role.json is not what `sidegate iam` prints:\n%s", printed)
	}

	var execution, trust iamPolicy
	readStrictly(t, d.read(t, "execution-role.json"), &execution)
	readStrictly(t, d.read(t, "trust-policy.json"), &trust)
	for _, s := range execution.Statement {
		for _, action := range s.Action.([]any) {
			if service, _, _ := strings.Cut(action.(string), ":"); !slices.Contains([]string{"ecr", "logs", "secretsmanager"}, service) || strings.Contains(action.(string), "*") {
				t.Errorf("the execution role may %s", action)
			}
		}
		for _, resource := range s.Resource.([]any) {
			// The login to the registry is the one call that has no resource.
			if resource == "*" && fmt.Sprint(s.Action) != "[ecr:GetAuthorizationToken]" {
				t.Errorf("%s is about everything", s.Sid)
			}
		}
	}
	if s := trust.Statement; len(s) != 1 || s[0].Principal["Service"] != "ecs-tasks.amazonaws.com" || len(s[0].Condition) == 0 {
		t.Errorf("the roles are trusted to %v", s)
	}
}

// TestDeployECSGoogle: google.json says in the words of Google's libraries how the
// task's role becomes a Google account, and holds no secret.
func TestDeployECSGoogle(t *testing.T) {
	var file struct {
		Type             string `json:"type"`
		Audience         string `json:"audience"`
		SubjectTokenType string `json:"subject_token_type"`
		TokenURL         string `json:"token_url"`
		Impersonation    string `json:"service_account_impersonation_url"`
		Source           struct {
			EnvironmentID string `json:"environment_id"`
			Verification  string `json:"regional_cred_verification_url"`
		} `json:"credential_source"`
	}
	readStrictly(t, deploymentNamed(t, "ecs").read(t, "google.json"), &file)
	if file.Type != "external_account" || file.SubjectTokenType != "urn:ietf:params:aws:token-type:aws4_request" || file.Source.EnvironmentID != "aws1" {
		t.Errorf("%+v", file)
	}
	if !strings.HasPrefix(file.TokenURL, "https://sts.googleapis.com/") || !strings.HasPrefix(file.Impersonation, "https://iamcredentials.googleapis.com/") || !strings.HasPrefix(file.Source.Verification, "https://sts.{region}.amazonaws.com?") {
		t.Errorf("tokens are shown to somebody else: %+v", file)
	}
}
