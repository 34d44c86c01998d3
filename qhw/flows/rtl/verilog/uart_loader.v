// A serial line as the streams of a design: words of X bytes in, words of Y bytes out, the lowest byte first.
// BYTES of an image wait in a queue, so a host that has no more than one image on its way loses nothing; `lost` says
// that a byte came when the queue was full.
module uart_loader #(
    parameter X = 1, Y = 2, BYTES = 64, DIVIDER = 25
) (
    input  clk, reset, receive, x_ready, y_valid,
    input  [Y*8-1:0] y,
    output transmit, x_valid, y_ready,
    output [X*8-1:0] x,
    output reg lost
);
    localparam D = BYTES < 2 ? 2 : BYTES, STYLE = D <= 64 ? 1 : 2;
    wire [7:0] received, queued, sent;
    wire received_valid, received_ready, queued_valid, queued_ready, sent_valid, sent_ready;
    uart_receiver #(.DIVIDER(DIVIDER)) receiver (
        .clk(clk), .reset(reset), .line(receive), .valid(received_valid), .data(received)
    );
    fifo #(.D(D), .W(8), .STYLE(STYLE)) image (
        .clk(clk), .reset(reset), .x_valid(received_valid), .x(received), .x_ready(received_ready),
        .y_valid(queued_valid), .y_ready(queued_ready), .y(queued), .count()
    );
    gearbox #(.A(1), .B(X), .W(8)) words (
        .clk(clk), .reset(reset), .x_valid(queued_valid), .x(queued), .x_ready(queued_ready),
        .y_valid(x_valid), .y_ready(x_ready), .y(x)
    );
    gearbox #(.A(Y), .B(1), .W(8)) bytes (
        .clk(clk), .reset(reset), .x_valid(y_valid), .x(y), .x_ready(y_ready),
        .y_valid(sent_valid), .y_ready(sent_ready), .y(sent)
    );
    uart_transmitter #(.DIVIDER(DIVIDER)) transmitter (
        .clk(clk), .reset(reset), .x_valid(sent_valid), .x(sent), .x_ready(sent_ready), .line(transmit)
    );
    always @(posedge clk)
        if (reset) lost <= 1'b0;
        else if (received_valid & ~received_ready) lost <= 1'b1;
endmodule
