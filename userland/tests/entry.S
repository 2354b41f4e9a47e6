/* Threads that look at their own registers. */
#include <l4/abi.h>

#define SLEEP (L4_CAP_INVALID | L4_OP_RECV)

/* Stores the registers it starts with to conf_start_registers: eax ebx ecx edx esi edi ebp esp eflags cs ds es ss fs gs.
 * Then sleeps for ever. */
	.text
	.globl conf_record_registers
	.type conf_record_registers, @function
conf_record_registers:
	movl %eax, conf_start_registers
	movl %ebx, conf_start_registers + 4
	movl %ecx, conf_start_registers + 8
	movl %edx, conf_start_registers + 12
	movl %esi, conf_start_registers + 16
	movl %edi, conf_start_registers + 20
	movl %ebp, conf_start_registers + 24
	movl %esp, conf_start_registers + 28
	pushfl
	popl conf_start_registers + 32
	movl $conf_start_registers + 36, %edi
	movl %cs, %eax
	movl %eax, (%edi)
	movl %ds, %eax
	movl %eax, 4(%edi)
	movl %es, %eax
	movl %eax, 8(%edi)
	movl %ss, %eax
	movl %eax, 12(%edi)
	movl %fs, %eax
	movl %eax, 16(%edi)
	movl %gs, %eax
	movl %eax, 20(%edi)
	jmp conf_sleep
	.size conf_record_registers, . - conf_record_registers

/* Sleeps for ever, using no stack of its own but for the call. */
	.globl conf_sleep
	.type conf_sleep, @function
conf_sleep:
	xorl %eax, %eax
	xorl %ecx, %ecx
	movl $SLEEP, %edx
	movl $L4_SYSTEM_CALL_PAGE, %edi
	call *%edi
	jmp conf_sleep
	.size conf_sleep, . - conf_sleep

/* Thread entries that read from and write to the address in their argument, at a labelled instruction. */
	.globl conf_read_at, conf_read_here
	.type conf_read_at, @function
conf_read_at:
	movl 4(%esp), %eax
conf_read_here:
	movl (%eax), %eax
	jmp conf_sleep
	.size conf_read_at, . - conf_read_at

	.globl conf_write_at, conf_write_here
	.type conf_write_at, @function
conf_write_at:
	movl 4(%esp), %eax
conf_write_here:
	movl $1, (%eax)
	jmp conf_sleep
	.size conf_write_at, . - conf_write_at

	.bss
	.balign 4
	.globl conf_start_registers
conf_start_registers:
	.skip 15 * 4

	.section .note.GNU-stack, "", @progbits
