/* firmware.c: the main loop of every board. */
#include "port.h"
#include "protocol.h"

int main(void)
{
    port_start();
    protocol_start();
    for (;;) {
        const int byte = port_read();
        if (byte >= 0) {
            protocol_byte((uint8_t)byte);
        }
    }
}
