package main

import (
	"fmt"
	"strings"

	"google.golang.org/grpc"
)

const (
	name    = "example.io/rehearsal"
	backup  = `{"metadata":{"name":"b1","namespace":"velero"},"status":{"phase":"InProgress"}}`
	ending  = `{"metadata":{"name":"b1","namespace":"velero"},"status":{"phase":"Finalizing"}}`
	mebi    = 1024 * 1024
	execute = "/v2.BackupItemAction/Execute"
	restore = "/v2.RestoreItemAction/Execute"
)

// item is a ConfigMap whose annotation tells the action of the tests what to do.
func item(do string, size int) string {
	return fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"part","namespace":"app",`+
		`"annotations":{"example.io/do":%q}},"data":{"n": 123456789012345678901234567890, "all":%q}}`,
		do, strings.Repeat("x", size))
}

// rehearse calls the actions that the tests of the plugin's protocol are made of.
func rehearse(connection *grpc.ClientConn, calls map[string]*call) {
	calls["appliesTo"] = try(connection, "/v2.BackupItemAction/AppliesTo", name)
	calls["large"] = try(connection, execute, name, item("echo", 12*mebi), backup)
	calls["log"] = try(connection, execute, name, item("log", 1), backup)
	calls["panic"] = try(connection, execute, name, item("panic", 1), backup)
	calls["fail"] = try(connection, execute, name, item("fail", 1), backup)
	calls["operate"] = try(connection, execute, name, item("operate", 1), backup)
	calls["finalizing"] = try(connection, execute, name, item("operate", 1), ending)
	calls["lost"] = try(connection, "/v2.BackupItemAction/Progress", name, "app.lost", backup)
	calls["restore"] = try(connection, restore, name, item("skip", 1), "{}", item("skip", 1))
	// what is restored has lost its annotation, as after another action; what was backed up still has it
	calls["both"] = try(connection, restore, name, item("", 1), "{}", item("wait", 1))
	calls["delete"] = try(connection, "/generated.DeleteItemAction/Execute", name, item("echo", 1), backup)
	calls["undeleted"] = try(connection, "/generated.DeleteItemAction/Execute", name, item("fail", 1), backup)
	calls["stranger"] = try(connection, execute, "example.io/stranger", item("echo", 1), backup)
	calls["health"] = try(connection, "/grpc.health.v1.Health/Check", "plugin")
}

// follow asks after the operation of a rehearsal and cancels it, from another process than the one that began it.
func follow(connection *grpc.ClientConn, calls map[string]*call) {
	calls["progress"] = try(connection, "/v2.BackupItemAction/Progress", name, "app.part", backup)
	calls["cancel"] = try(connection, "/v2.BackupItemAction/Cancel", name, "app.part", backup)
	calls["cancelled"] = try(connection, "/v2.BackupItemAction/Progress", name, "app.part", backup)
}
