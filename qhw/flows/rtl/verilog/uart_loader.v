// A serial line as the streams of a design: words of X bytes in, words of Y bytes out, the lowest byte first.
// A byte 1 is followed by the BYTES of an image, and answered by its codes; a byte 2 is answered by the IDENTITY, the
// highest byte first; other bytes in those places mean nothing.
// BYTES of an image wait in a queue, so a host that has no more than one image on its way loses nothing; `lost` says
// that a byte came when the queue was full.
module uart_loader #(
    parameter X = 1, Y = 2, BYTES = 64, DIVIDER = 25,
    parameter [63:0] IDENTITY = 0
) (
    input  clk, reset, receive, x_ready, y_valid,
    input  [Y*8-1:0] y,
    output transmit, x_valid, y_ready,
    output [X*8-1:0] x,
    output reg lost
);
    localparam D = BYTES < 2 ? 2 : BYTES, STYLE = D <= 64 ? 1 : 2, N = $clog2(BYTES + 1);
    wire [7:0] received, queued, sent;
    wire received_valid, received_ready, queued_valid, queued_ready, sent_valid, sent_ready, line_ready;
    reg  [N-1:0] left;          // bytes of an image that are still to come
    reg  in_image;              // whether there are any
    reg  [3:0] untold;          // bytes of the identity that are still to go
    wire telling = untold != 0;
    wire begun = received_valid & ~in_image & received == 8'd1;
    wire asked = received_valid & ~in_image & received == 8'd2;
    wire [63:0] told = IDENTITY >> {untold[2:0] - 3'd1, 3'b0};
    always @(posedge clk)
        if (reset) begin
            in_image <= 1'b0;
            untold <= 0;
        end else begin
            if (begun) begin
                left <= BYTES;
                in_image <= 1'b1;
            end else if (received_valid & in_image) begin
                left <= left - 1'b1;
                in_image <= left != 1;
            end
            if (asked) untold <= 8;
            else if (telling & line_ready) untold <= untold - 1'b1;
        end
    uart_receiver #(.DIVIDER(DIVIDER)) receiver (
        .clk(clk), .reset(reset), .line(receive), .valid(received_valid), .data(received)
    );
    fifo #(.D(D), .W(8), .STYLE(STYLE)) image (
        .clk(clk), .reset(reset), .x_valid(received_valid & in_image), .x(received), .x_ready(received_ready),
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
    assign sent_ready = line_ready & ~telling;
    uart_transmitter #(.DIVIDER(DIVIDER)) transmitter (
        .clk(clk), .reset(reset), .x_valid(telling | sent_valid), .x(telling ? told[7:0] : sent),
        .x_ready(line_ready), .line(transmit)
    );
    always @(posedge clk)
        if (reset) lost <= 1'b0;
        else if (received_valid & in_image & ~received_ready) lost <= 1'b1;
endmodule
