package upload

import "testing"

// What is stored is found again by these: no version may compute them in another
// way.
func TestDigestsStay(t *testing.T) {
	id, uuid := IdempotentID("users", "u1", "presign", "é")
	if id != "e3ae553cacaaa985acd676aad0dc2848" || uuid != "5fb92d39cc3049359c60d2756aa3d558" || UUIDOf("") != "f58f0b2a80828fa3c923ebed4cc50804" {
		t.Errorf("%s, %s, %s", id, uuid, UUIDOf(""))
	}
}
